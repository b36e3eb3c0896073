"""What operators see: one read model behind `status`, `doctor` and every later view.

It may import `broker`, `redis` and the rooms below them; it changes nothing.
"""
