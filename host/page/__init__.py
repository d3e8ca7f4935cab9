"""The page that ``reverb-fpga report -o`` writes: figures (``facts``, ``precision``, ``timeline``), charts, HTML."""
