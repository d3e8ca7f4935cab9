"""One module per command; :mod:`reverb_fpga.host.cli` loads each only when it is asked for."""
