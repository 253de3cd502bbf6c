import torch

# As in a run (`num_threads: 1`): for networks of this size a second thread only waits.
torch.set_num_threads(1)
