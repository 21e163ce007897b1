"""Ray: studies, batch scoring and serving on several machines. Only here is Ray imported."""
