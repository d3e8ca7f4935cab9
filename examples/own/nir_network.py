import nir
import numpy as np
import snntorch as snn
from snntorch import utils
from torch import nn
from training import accuracy, fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
neurons = snn.Leaky(beta=0.75, reset_mechanism="zero", init_hidden=True)
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), neurons, nn.Linear(128, 10))
train(net, lambda x: (utils.reset(net), sum(net(x) for _ in range(8)))[1], x, y)
weights = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (net[1], net[3])]
one = np.ones(128)
lif = nir.LIF(tau=4e-4 * one, r=4 * one, v_leak=0 * one, v_threshold=one)
graph = nir.NIRGraph.from_list(nir.Flatten([1, 28, 28], 0), nir.Affine(*weights[0]), lif, nir.Affine(*weights[1]))
model = rf.compile(graph, x_test, timesteps=8)
utils.reset(net)
print(accuracy(sum(net(x_test) for _ in range(8)), y_test), accuracy(model.logits(x_test), y_test), model.agreement)
print(model.save("nir.rvb"), model.verify(x_test[:1]))
