import nir
import numpy as np
from spikingjelly.activation_based import functional, neuron
from torch import nn
from training import fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), neuron.LIFNode(tau=4.0), nn.Linear(128, 10))
train(net, x, y, steps=8, reset=functional.reset_net)
layers = [nir.Affine(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (net[1], net[3])]
lif = nir.LIF(tau=np.full(128, 4e-4), r=np.ones(128), v_leak=np.zeros(128), v_threshold=np.ones(128))
graph = nir.NIRGraph.from_list(nir.Flatten({"input": np.array([1, 28, 28])}, 0), layers[0], lif, layers[1])
model = rf.compile(graph, x_test, timesteps=8, truth=y_test)
print(model.agreement, model.save("nir.rvb"), model.verify(x_test[:1]), sep="\n")
