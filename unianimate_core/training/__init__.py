"""Training: a folder of videos with motions into weights that `load_unet` and the nodes read."""
