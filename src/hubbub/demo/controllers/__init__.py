"""Controllers: one class for each page, with its routes, its hub and its handlers."""
