"""A small matrix, and its bytes."""

from __future__ import annotations

import numpy as np

SIZE, DIM = 12, 3
VALUES = np.arange(SIZE * DIM, dtype=np.float32).reshape(SIZE, DIM)
BYTES = VALUES.view(np.uint8)
