"""What a person submits: one thin entry point each; recipes are in jobs/configs/."""
