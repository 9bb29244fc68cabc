"""What the builders of photographed people share; no data set of its own."""
