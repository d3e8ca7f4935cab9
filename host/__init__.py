"""Host side: the driver that streams images and the ``reverb-fpga`` command. Needs neither torch nor amaranth."""
