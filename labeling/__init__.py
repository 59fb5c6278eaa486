"""Human labels: what people are asked about a picture. The server, sampling and rates build on this."""
