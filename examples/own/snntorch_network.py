import snntorch as snn
from snntorch import utils
from torch import nn
from training import fashion_mnist, train

import reverb_fpga as rf

x, y, x_test, y_test = fashion_mnist("data")
leaky = {"beta": 0.75, "init_hidden": True}
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), snn.Leaky(**leaky), nn.Linear(128, 10), snn.Leaky(**leaky))
train(net, x, y, steps=8, reset=utils.reset)
model = rf.compile(net, x_test, timesteps=8, truth=y_test)
print(model.agreement, model.save("snntorch.rvb"), model.verify(x_test[:1]), sep="\n")
