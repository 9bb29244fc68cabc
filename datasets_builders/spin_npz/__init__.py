"""Any SPIN-style archive with its images."""
