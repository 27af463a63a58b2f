"""What is IPVS mode's own, in a kernel that has IPVS."""
