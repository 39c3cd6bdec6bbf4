"""Looking at what a config trains, before it does: its images, its model."""
