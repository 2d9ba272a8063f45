"""Cameras and LiDARs on Warp arrays: intrinsics, ray bundles, mounts, rates, noise."""
