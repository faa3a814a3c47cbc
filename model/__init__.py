"""The mathematics of AudioCALM in torch, on one device."""
