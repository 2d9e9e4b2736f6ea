"""What label_videos.py is made of: lists of videos for raters, and label files of their ratings."""
