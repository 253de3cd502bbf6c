from .basic_controller import BasicMAC


class NonSharedMAC(BasicMAC):
    hidden_per_agent = True
