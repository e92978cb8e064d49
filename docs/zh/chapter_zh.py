"""
反向传播一章的完整演练
======================

从两个苹果的价格出发，一直走到训练好的网络：计算图、链式法则、层、网络、学习。每一步只有几行代码，每张图都由刚刚执行的计算画出。内容与《深度学习入门：基于 Python 的理论与实现》（斋藤康毅著）第 5 章的顺序一致。

本页的英文版：:doc:`The chapter as a walk </auto_tutorials/chapter>`。
"""

# %%
# 计算图
# ------
# 买两个苹果，每个 100 日元，消费税 10%。 `Variable` 是一个记得自己如何被算出来的数。每一步的值写在箭头上方。

import numpy as np

from fastbp import graph
from fastbp.graph import Variable

price, number, tax = Variable(100, "apple"), Variable(2, "number"), Variable(1.1, "tax")
total = price * number * tax
total.draw(gradients=None)

# %%
# 从左向右进行计算，称为前向传播（正向传播）。每个节点只根据与自己相邻的值完成一个简单的计算，无需了解全局，这就是“局部计算”。正因为如此，沿着相反方向走回去同样简单。
#
# 反向传播
# --------
# 如果一个苹果贵 1 日元，总价会增加多少？ `backward` 带着这个问题，从右向左穿过整个计算图。梯度写在箭头下方，用另一种颜色表示。

total.backward()
print(f"对苹果价格 {price.grad:.1f}，对个数 {number.grad:.0f}，对消费税 {tax.grad:.0f}")
total.draw()

# %%
# 苹果每贵 1 日元，总价增加 2.2 日元；消费税每增加 1（即 100%），总价增加 200 日元。
#
# 链式法则
# --------
# z = (x + y)² 分两步计算：先算 t = x + y，再算 z = t²。整体的导数等于各步导数的乘积：∂z/∂x = ∂z/∂t · ∂t/∂x = 2t · 1。计算图也可以不显示数值，而显示公式：

graph.figures.figure("chain-rule").draw()

# %%
# 同一张图代入数值：x = 1，y = 2，所以两个梯度都是 2·(1 + 2) = 6。

x, y = Variable(1, "x"), Variable(2, "y")
t = x + y
z = t**2
z.backward()
print(x.grad, y.grad)
z.draw()

# %%
# 两种节点，两条规则
# ------------------
# 加法节点把上游传来的值原封不动地传给两个下游。

graph.figures.figure("plus-formulas").draw()

# %%
# 乘法节点把上游传来的值乘以“另一个”输入再传下去。因此它必须保存前向传播时的输入。

graph.figures.figure("times-formulas").draw()

# %%
# 只凭这两条规则，就能求出更长账单的梯度。这次还买了橘子：

apples, oranges = Variable(2, "apples"), Variable(3, "oranges")
apple, orange, tax = Variable(100, "apple"), Variable(150, "orange"), Variable(1.1, "tax")
bill = (apple * apples + orange * oranges) * tax
bill.backward()
bill.draw()

# %%
# 层
# --
# 把节点写成类，就是层： `forward` 负责前向传播，并保存反向传播所需的值； `backward` 接收输出的梯度，返回输入的梯度。下面用层来买苹果。与书中的代码相比，只有 import 这一行不同。

from fastbp.layers import MulLayer

apple_layer, tax_layer = MulLayer(), MulLayer()
apple_price = apple_layer.forward(100, 2)
print(f"前向传播：{tax_layer.forward(apple_price, 1.1):.1f}")

dapple_price, dtax = tax_layer.backward(1)
dapple, dnumber = apple_layer.backward(dapple_price)
print(f"反向传播：苹果 {dapple:.1f}，个数 {dnumber:.1f}，消费税 {dtax:.1f}")

# %%
# 激活函数层
# ----------
# 前向传播时输入大于 0 的地方，ReLU 让梯度原样通过；其余的地方，梯度到此为止。

from fastbp.layers import ReLU, Sigmoid

relu = ReLU()
print(relu.forward(np.array([[1.0, -0.5], [-2.0, 3.0]])))
print(relu.backward(np.ones((2, 2))))

# %%
# sigmoid 函数是由四个节点组成的计算图。沿着它们反向走一遍，公式逐步整理，最后只剩下输出：y(1 − y)。

graph.figures.figure("sigmoid").draw()

# %%
# 所以层只需保存输出，四个节点可以合并成一个。

a = Variable(1.0, "x")
s = a.sigmoid()
s.draw(gradients="formulas")

# %%
sigmoid = Sigmoid()
out = sigmoid.forward(np.array([0.0, 1.0]))
print(out.round(4), sigmoid.backward(np.ones(2)).round(4), (out * (1 - out)).round(4))

# %%
# Affine 层
# ---------
# 神经网络的一层先乘以权重矩阵，再加上偏置。反向传播时，哪个矩阵需要转置由形状决定：∂L/∂X 与 X 形状相同，∂L/∂W 与 W 形状相同。偏置被加到了批次的每一行上，所以它的梯度是各行之和。

graph.figures.figure("affine-batch").draw()

# %%
# Softmax-with-Loss 层
# --------------------
# 最后是 softmax 函数和交叉熵误差，合成一个节点：输入三个得分和正确解标签，输出损失。

scores, target = Variable(np.log([3.0, 2.0, 5.0]), "a"), Variable(np.array([0.0, 1.0, 0.0]), "t")
loss = graph.softmax_with_loss(scores, target)
loss.backward()
loss.draw()

# %%
# `opened` 展示一个节点的内部。这个节点里有两层。把它们展开，就能看出为什么要放在一起：传到得分处的梯度恰好是 y − t，即输出与正确解标签之差。

graph.opened(loss).draw()

# %%
# 再用公式表示，每个类别一个箭头：

graph.figures.figure("softmax-with-loss").draw()

# %%
# 如果一直展开到单个的数，图会变得很大，但用到的规则并没有增加。命令 ``fastbp graph derivation -o derivation.html`` 会生成一个带滑块的网页，可以一步一步地观看推导过程。

graph.figures.figure("softmax-with-loss-opened").draw()

# %%
# 网络
# ----
# 两个 Affine 层，中间夹着一个 ReLU 层。参数是带名字的数组。 `loss` 执行前向传播， `gradient` 先前向传播，再反向传播。

from fastbp import TwoLayerNet, gradient_check
from fastbp.data import load_digits

digits = load_digits()  # scikit-learn 自带的 8×8 手写数字图像
network = TwoLayerNet(64, 50, 10, seed=0)
print(network.params)
print("训练前的损失：", round(network.loss(digits.x_train, digits.t_train), 4))

# %%
# 梯度确认
# --------
# 数值微分把每个参数稍稍移动一点，看损失如何变化。它很慢，但简单得不容易出错。反向传播求得的梯度必须与它一致。

check = gradient_check(network, digits.x_train[:3], digits.t_train[:3])
print(check)
print("一致：", check.passed)

# %%
# 学习
# ----
# 与书中的循环相同：随机抽取 mini-batch，求梯度，沿梯度的反方向更新参数。

rng = np.random.default_rng(0)
losses = []
for _ in range(1000):
    batch = rng.choice(len(digits.x_train), 100)
    grads = network.gradient(digits.x_train[batch], digits.t_train[batch])
    for key in network.params:
        network.params[key] -= 0.1 * grads[key]
    losses.append(network.last_layer.loss)

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(losses)
axes.set(xlabel="step", ylabel="loss of the batch", ylim=(0, None))
axes.grid(alpha=0.3)
print("测试数据的识别精度：", round(network.accuracy(digits.x_test, digits.t_test), 4))

# %%
# 整个循环都在编译后的代码中
# --------------------------
# `fit` 在一个编译好的内核里完成同样的循环，并记录学习的经过。

network = TwoLayerNet(64, 50, 10, seed=0)
history = network.fit(
    digits.x_train, digits.t_train, epochs=70, optimizer="adam", seed=0, validation_data=(digits.x_test, digits.t_test)
)
print("最好的一轮：", history.best("val_accuracy"))
history.plot()
