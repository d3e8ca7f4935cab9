from torch import nn
from torch.nn.functional import relu
from training import fashion_mnist, train

import reverb_fpga as rf


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(n, 16, 3, s, 1) for n, s in ((1, 2), (16, 2), (16, 1)))
        self.norm, self.fc = nn.BatchNorm2d(16), nn.Linear(16 * 49, 10)

    def forward(self, x):
        y = relu(self.b(relu(self.a(x))))
        return self.fc(relu(self.norm(self.c(y)) + y).flatten(1))


x, y, x_test, y_test = fashion_mnist("data")
model = rf.compile(train(Net(), x, y), x_test, truth=y_test)
print(model.agreement, model.save("shortcut.rvb"), model.verify(x_test[:1]), sep="\n")
