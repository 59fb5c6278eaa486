"""Human labels: what people are asked about an image. The server, sampling and rates build on this."""
