from torch import nn
from torch.nn import functional as F  # noqa: N812
from training import accuracy, fashion_mnist, train

import reverb_fpga as rf


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 16, 3, s, 1) for n, s in ((1, 2), (16, 2), (16, 1)))
        self.norm, self.fc = nn.BatchNorm2d(16), nn.Linear(16 * 49, 10)

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.a(x))))
        return self.fc(F.relu(self.norm(self.c(y)) + y).flatten(1))


x, y, x_test, y_test = fashion_mnist("data")
train(net := Net(), net, x, y)
model = rf.compile(net, x_test)
print(accuracy(net(x_test), y_test), accuracy(model.logits(x_test), y_test), model.agreement)
print(model.save("shortcut.rvb"), model.verify(x_test[:1]))
