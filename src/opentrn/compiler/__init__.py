"""From PyTorch graphs to kernel calls. So far: the time of a kernel call on given shapes."""
