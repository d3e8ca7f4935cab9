"""Networks with binary weights and real-valued spikes, their training and their data."""
