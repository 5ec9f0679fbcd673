// Show the overview, or the scene that the address names.

function route() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const scene = asked.get("scene");
  const known = data.scenes.some((one) => one.name === scene);
  const views = data.views.includes(Number(asked.get("views"))) ? Number(asked.get("views")) : data.views[0];
  const [overview, page] = [document.getElementById("overview"), document.getElementById("scene")];
  const came = page.hidden === known;
  overview.hidden = known;
  page.hidden = !known;
  document.title = known ? `${scene}, ${plural(views, "view")} – ${data.title}` : data.title;
  if (known) {
    state.views = views;
    if (page.dataset.scene === scene && !came) {
      redrawn(page, () => drawScene(scene, views));
    } else {
      drawScene(scene, views);
      page.dataset.scene = scene;
      page.querySelector("h1").focus({ preventScroll: true });
      window.scrollTo(0, 0);
    }
  } else {
    drawResults();
    drawPlots();
    drawScenes();
    if (came) window.scrollTo(0, 0);
  }
}

window.addEventListener("hashchange", route);
route();
