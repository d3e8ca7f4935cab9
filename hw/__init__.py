"""Gateware of the overlay accelerator, and the contract every other room shares."""
