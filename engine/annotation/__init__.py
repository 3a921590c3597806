"""Annotation by people: campaigns, the promptable decoder, drafts, submissions and reviews.

The service is `engine.annotation.http`, its page `engine/annotation/web`; both stand on the modules
here, which know no HTTP. Import from the modules themselves.
"""
