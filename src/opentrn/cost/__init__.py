"""What training costs: prices with dates and sources, peer accelerators, break-even and the claims of the trade."""
