from torch import nn
from training import fashion_mnist, train

import reverb_fpga as rf
from reverb_fpga.models.modules import LIF, QuantConv2d, QuantLinear, Scale, reset

x, y, x_test, y_test = fashion_mnist("data")
first = [QuantConv2d(1, 16, 3, 2, 1, weights=4), nn.BatchNorm2d(16), LIF(tau=0.5, v_th=0.25), Scale(16)]
second = [QuantConv2d(16, 32, 3, 2, 1, weights="binary"), nn.BatchNorm2d(32), LIF(tau=0.5, v_th=0.25)]
net = nn.Sequential(*first, *second, nn.Flatten(), QuantLinear(1568, 10, weights=4))
train(net, x, y, steps=2, reset=reset)
model = rf.compile(net, x_test, timesteps=2, truth=y_test)
print(model.agreement, model.save("real_spikes.rvb"), model.verify(x_test[:1]), sep="\n")
