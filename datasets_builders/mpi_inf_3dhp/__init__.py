"""MPI-INF-3DHP, people in a green studio and outdoors."""
