"""The actors of Skyshard, one file each, and what they share."""
