import torch
from spikingjelly.activation_based import functional, layer, neuron
from training import fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
first = [layer.Conv2d(1, 16, 3, 2, 1), layer.BatchNorm2d(16), neuron.LIFNode(v_reset=None)]
second = [layer.Conv2d(16, 32, 3, 2, 1), layer.BatchNorm2d(32), neuron.LIFNode()]
net = torch.nn.Sequential(*first, *second, layer.Flatten(), layer.Linear(1568, 10))
train(net, x, y, steps=4, reset=functional.reset_net)
model = rf.compile(net, x_test, timesteps=4, truth=y_test)
print(model.agreement, model.save("spikingjelly.rvb"), model.verify(x_test[:1]), sep="\n")
