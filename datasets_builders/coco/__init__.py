"""COCO 2014 with the pseudo ground truth of CLIFF."""
