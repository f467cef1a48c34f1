"""Many videos from one table, on one machine or on many."""
