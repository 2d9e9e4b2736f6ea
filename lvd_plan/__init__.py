"""Parts of plan.py: what a study will take in disk, memory and hours, told before it begins."""
