"""The rules: when a video is unsafe, given what the detectors said of its first steps."""
