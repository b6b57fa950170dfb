"""Parts: what several engines are made of. No product is named here."""
