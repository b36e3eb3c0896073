"""What operators see: one read model behind `status`, `doctor` and every later view.

It may import `broker`, `redis` and what lies below; it changes nothing.
"""
