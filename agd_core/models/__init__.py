"""The model that is distilled: any diffusers folder whose class of networks is known, and the loop that samples."""
