"""Pure heart: no clock, no input or output, no await."""
