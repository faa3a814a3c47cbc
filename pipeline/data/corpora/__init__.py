"""One small adapter per published corpus layout."""
