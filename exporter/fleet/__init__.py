"""All users at once: shards of users through workers, and a folder of whole parts that a killed run goes on with.

What is computed of a shard is a pure function of it, arrays in and arrays out by name, so that any engine may call it,
anywhere and twice. The engine here starts processes on this machine.
"""
