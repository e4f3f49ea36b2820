"""One file a contestant, one function a task. A function takes what `setup` gave and the task's data, and gives a tensor.

`LIBRARY` is what must be importable; `CANNOT` says why a task has no function.
"""
