"""The larger model behind the lines: judges single images and what edges were unsure of."""
