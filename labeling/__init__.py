"""Human labels: what people are asked about a picture. The server, sampling and estimates build on this."""
