import torch
from spikingjelly.activation_based import functional, layer, neuron
from training import accuracy, fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
first = [layer.Conv2d(1, 16, 3, 2, 1), layer.BatchNorm2d(16), neuron.LIFNode(v_reset=None)]
second = [layer.Conv2d(16, 32, 3, 2, 1), layer.BatchNorm2d(32), neuron.LIFNode()]
net = torch.nn.Sequential(*first, *second, layer.Flatten(), layer.Linear(1568, 10))
train(net, lambda x: (functional.reset_net(net), sum(net(x) for _ in range(4)))[1], x, y)
model = rf.compile(net, x_test, timesteps=4)
functional.reset_net(net)
print(accuracy(sum(net(x_test) for _ in range(4)), y_test), accuracy(model.logits(x_test), y_test), model.agreement)
print(model.save("spikingjelly.rvb"), model.verify(x_test[:1]))
