import snntorch as snn
from snntorch import utils
from torch import nn
from training import accuracy, fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
leaky = {"beta": 0.75, "init_hidden": True}
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), snn.Leaky(**leaky), nn.Linear(128, 10), snn.Leaky(**leaky))
train(net, lambda x: (utils.reset(net), sum(net(x) for _ in range(8)))[1], x, y)
model = rf.compile(net, x_test, timesteps=8)
utils.reset(net)
print(accuracy(sum(net(x_test) for _ in range(8)), y_test), accuracy(model.logits(x_test), y_test), model.agreement)
print(model.save("snntorch.rvb"), model.verify(x_test[:1]))
