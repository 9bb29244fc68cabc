"""Human3.6M as 2D and 3D poses, from the archives of VideoPose3D."""
