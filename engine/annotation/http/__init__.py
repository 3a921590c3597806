"""The annotation service: HTTP around the domain modules of `engine.annotation`.

    app = create_app(ServiceContext(database=database, ...))

The only home of FastAPI and Starlette. Handlers check who asks, call one function of the domain and
say the answer in JSON; nothing here decides about annotation.
"""
