"""Networks and processes of diffusion models."""
