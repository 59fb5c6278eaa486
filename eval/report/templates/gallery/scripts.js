{# In the order in which they need each other. #}
{% for part in ["grid", "hold", "wipe", "zoom", "images", "choice", "layouts", "columns", "histogram", "address", "table", "gallery"] %}
{% include "gallery/" ~ part ~ ".js" %}

{% endfor %}
